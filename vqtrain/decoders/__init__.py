"""Networks from quantized latents to images."""
