"""TMKT: knowledge transfer from static images to event-camera data by time-step mixup (arXiv 2511.12150)."""
