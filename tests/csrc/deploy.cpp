// A program without Python that loads libtmkt_kernels.so and an AOTInductor package, and runs it.
// deploy LIBRARY PACKAGE INPUT OUTPUT SIZE...
// INPUT and OUTPUT are raw floats; SIZE... is the shape of the input.
#include <ATen/ATen.h>
#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

int main(int argc, char** argv) {
  if (argc < 6 || !dlopen(argv[1], RTLD_NOW)) {
    std::fprintf(stderr, "deploy: %s\n", argc < 6 ? "too few arguments" : dlerror());
    return 1;
  }
  std::vector<int64_t> sizes;
  for (int i = 5; i < argc; ++i) sizes.push_back(std::stoll(argv[i]));
  at::Tensor x = at::empty(sizes, at::kFloat);
  std::ifstream(argv[3], std::ios::binary).read(static_cast<char*>(x.data_ptr()), x.nbytes());
  torch::inductor::AOTIModelPackageLoader model(argv[2]);
  const at::Tensor y = model.run({x}).at(0).contiguous();
  std::ofstream(argv[4], std::ios::binary).write(static_cast<const char*>(y.data_ptr()), y.nbytes());
  return 0;
}
