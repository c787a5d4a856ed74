"""From latents to token ids and back."""
