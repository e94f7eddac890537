"""An audio-language model assembled from pretrained parts, and a benchmark of spoken words and sounds for it."""
