"""Pictures that a generation starts from: img2img, inpainting, a second pass."""
