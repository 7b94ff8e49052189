"""Where images and recordings come from, before anything is loaded."""
