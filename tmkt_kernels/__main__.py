"""`python -m tmkt_kernels [--json]`: report versions, build, and which backend serves each operator and why."""

import argparse
import json

from .backends import SERVES
from .extension import build_report, extension
from .report import report


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tmkt_kernels", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    facts = report()
    if parser.parse_args().json:
        print(json.dumps(facts, indent=2))
        return
    for name in ("tmkt_kernels", "python", "torch", "triton", "numpy"):
        print(f"{name:13} {facts[name] or 'not installed'}")
    print(f"{'gpu':13} {facts['gpu'] or 'none visible to torch'}")
    if extension.problem:
        print(f"{'library':13} none: {extension.problem}")
    else:
        info = extension.info
        print(f"{'library':13} compiled by {info['compiler']}")
        print(f"{'  simd':13} {info['simd']} in use, of {', '.join(info['simd_levels'])}")
        archs, ptx = (", ".join(f"sm_{arch}" for arch in info[key].split()) for key in ("cuda_archs", "cuda_ptx"))
        cuda = f"{info['cuda']}, {archs}, and PTX for {ptx} and later" if info["cuda"] else "not compiled"
        print(f"{'  cuda':13} {cuda}" + ("" if info["cuda"] else f" ({build_report().get('cuda', 'reason unknown')})"))
    print(f"{'events':13} {facts['events']}")
    for device, operators in facts["backends"].items():
        print(f"\noperators on {device}, and what serves them; auto takes the first")
        reasons: dict[str, list[str]] = {}  # reasons why a backend does not serve; most operators share them
        for op, rows in operators.items():
            serving = [backend for verdict in SERVES for backend, said in rows if said == verdict]
            print(f"  {op:10} {', '.join(serving)}")
            for backend, verdict in rows:
                if backend not in serving:
                    reasons.setdefault(f"{backend}: {verdict}", []).append(op)
        for reason, ops in reasons.items():
            print(f"  not {reason}" if len(ops) == len(operators) else f"  {', '.join(ops)} not {reason}")


if __name__ == "__main__":
    main()
