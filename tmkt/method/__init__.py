"""The paper's method (arXiv 2511.12150) and the methods compared with it; its time-step mixup is `tmkt.mixup`."""
