"""An event camera that looks at moving images: from still images to event frames or events."""
