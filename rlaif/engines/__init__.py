"""Text in → text, or the probabilities of label words, out."""
