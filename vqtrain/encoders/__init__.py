"""Networks from images to latents."""
