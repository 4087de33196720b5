"""Text encoder and UNet of the playroom base, with new weights."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from zeroconv.errors import UserError
from zeroconv.scratch.embedded import PLAYROOM


class TextToLatent(nn.Module):
    """The embedded base's text encoder and UNet, trained as one; weights are new.

    `unet` and `text` replace entries of their configs, for tests.
    """

    def __init__(self, unet: dict | None = None, text: dict | None = None) -> None:
        super().__init__()
        from diffusers import UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel

        asked = UNet2DConditionModel.load_config(PLAYROOM / "unet")
        self.unet = UNet2DConditionModel.from_config({**asked, **(unet or {})})
        config = CLIPTextConfig.from_pretrained(PLAYROOM / "text_encoder", trust_remote_code=False)
        for name, value in (text or {}).items():
            setattr(config, name, value)
        self.text = CLIPTextModel(config).float()
        nn.init.zeros_(self.unet.conv_out.weight)  # the first prediction is the mean of the target

    def forward(self, z: Tensor, t: Tensor, tokens: Tensor, prompt: Tensor) -> Tensor:
        """z (B, C, h, w), t (B,), tokens (P, L), prompt (B,) which of the P each picture has → v
        like z.
        """
        states = self.text(tokens).last_hidden_state[prompt]

        return self.unet(z, t, states).sample


def start_from_(model: TextToLatent, folder: Path) -> None:
    """Load the text encoder and the UNet of a StableDiffusionPipeline folder into a model.

    Raises UserError for a folder without them, and for those of another shape.
    """
    from safetensors.torch import load_file

    parts = {
        "unet/diffusion_pytorch_model.safetensors": model.unet,
        "text_encoder/model.safetensors": model.text,
    }
    for name, part in parts.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} does not exist; give --start the folder of a playroom base.")

        weights = {key.removeprefix("text_model."): value for key, value in load_file(path).items()}
        expected = {key.removeprefix("text_model."): key for key in part.state_dict()}
        try:
            part.load_state_dict({expected.get(key, key): weights[key] for key in weights})
        except RuntimeError as error:
            raise UserError(f"{path} holds a model of another shape ({error}).") from error
