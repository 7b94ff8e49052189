"""The gather of the time-step mixup."""
