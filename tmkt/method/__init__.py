"""The paper (arXiv 2511.12150) and what it is compared with; its time-step mixup is `tmkt.mixup`."""
