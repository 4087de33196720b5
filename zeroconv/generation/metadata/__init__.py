"""How a picture was made, as texts in its file: ours, A1111's, ComfyUI's."""
