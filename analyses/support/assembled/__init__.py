"""An audio-language model assembled from pretrained parts, and its benchmark of spoken words and sounds."""
