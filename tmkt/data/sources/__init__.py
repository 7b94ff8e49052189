"""Sources of images and recordings, before loading."""
