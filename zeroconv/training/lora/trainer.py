"""Training a LoRA: the held-out loss, pictures, and the file that other programs read."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from zeroconv.backbones import UNetBackbone, is_split
from zeroconv.checkpoints.lora import BASE, FILE, LCM
from zeroconv.data.batches import BatchPlan
from zeroconv.data.cache.examples import Examples
from zeroconv.errors import UserError
from zeroconv.files import atomic_folder, atomic_write
from zeroconv.inputs import at_home
from zeroconv.jsonfile import write_json
from zeroconv.training.execution.protocol import Execution
from zeroconv.training.loop import Loop
from zeroconv.training.lora.adapter import lora_state
from zeroconv.training.objective import stream
from zeroconv.training.recipes.lora import LoraRecipe
from zeroconv.training.reporting.prompted import Prompted
from zeroconv.training.reporting.reporter import Reporter
from zeroconv.training.reporting.samples import grid, spread, to_picture
from zeroconv.training.summary import summary_of


class LoraTrainer(Loop):
    """Trains the adapter in `backbone` on the backbone's own loss, by an `execution` of it.
    Everything that changes is in `state()`.
    """

    def __init__(
        self,
        recipe: LoraRecipe,
        backbone: UNetBackbone,
        data: Examples,
        held_out: Examples,
        execution: Execution,
        show_line: Callable[[str], None] = print,
        reporters: Sequence[Reporter] = (),
        prompts: Sequence[Prompted] = (),
    ) -> None:
        settings = recipe.training
        plan = BatchPlan(
            data,
            settings.batch_size,
            settings.seed,
            settings.prompt_dropping,
            flip=recipe.data.flip,
            rank=execution.rank,
            world=execution.processes,
        )
        super().__init__(recipe, data, plan, execution, show_line, reporters, prompts)
        self.backbone, self.held_out = backbone, held_out

    # ---------------------------------------------------------------- what it says and keeps

    def _validate(self) -> None:
        if not self.settings.validate_every or not self.runs_validation:
            return
        with self.execution.averaged():
            loss = self.validation_loss()
        self.history.append({"step": self.step, "loss": round(loss, 6)})
        self.log.write(self.step, validation={"loss": round(loss, 6)})
        self.show_line(f"step {self.step}/{self.settings.steps}  held-out loss {loss:.4f}")

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Mean loss on held-out pictures and their first captions; fixed noise, timesteps spread
        over the schedule.
        """
        n = min(self.recipe.data.validation_count, len(self.held_out))
        rows, generator = spread(len(self.held_out), n), stream("cpu", self.settings.seed, 3)
        t = self.loss.process.spread(n)[torch.randperm(n, generator=generator)]
        z = self.backbone.latents_from_moments(
            torch.from_numpy(self.held_out.moments[rows]), generator
        )
        noise = torch.randn(z.shape, generator=generator)
        text = self.held_out.text.states([self.held_out.captions[i][0] for i in rows])
        masks = self.held_out.masks_of(rows)
        device, errors = self.backbone.device, []
        for part in torch.arange(n).split(2 * self.settings.batch_size):
            z_, noise_, t_ = (x[part].to(device) for x in (z, noise, t))
            errors.append(
                self.loss.errors(
                    z_,
                    noise_,
                    t_,
                    None,
                    text[part].to(device),
                    control=False,
                    masks=None if masks is None else masks[part].to(device),
                ).cpu()
            )
        return float(torch.cat(errors).mean())

    def _sample(self) -> None:
        """A sheet: held-out pictures through the autoencoder above what the base makes of their
        captions.
        """
        from zeroconv.generation import generate

        settings, examples = self.settings, self.held_out
        if not self._samples():
            return
        path = self._sheet_path()
        if self.prompts:
            with self.execution.averaged():
                self._prompted(path if self.execution.main else None, None)
            self._tell_sheet(path)
            return
        rows = spread(len(examples), settings.sample_count)
        latents = self.backbone.latents_from_moments(
            torch.from_numpy(examples.moments[rows]), sample=False
        )
        targets = [
            to_picture(image)
            for image in self.backbone.decode_latents(latents.to(self.backbone.device))
        ]
        options: dict[str, Any] = {
            "cfg": settings.sample_cfg,
            "steps": settings.sample_steps,
            "seed": [*range(len(rows))],
            "plain_prompt": not examples.text.weighted,
        }
        if not is_split(self.backbone):  # their own size is the largest
            scale = self.backbone.latent_scale
            options |= {"height": scale * latents.shape[-2], "width": scale * latents.shape[-1]}
        with self.execution.averaged():
            made = generate(self.backbone, examples.prompts(rows), **options)
        if not self.execution.main:
            return

        with atomic_write(path) as temporary:
            grid([list(pair) for pair in zip(targets, made, strict=True)]).save(temporary)
        self._tell_sheet(path)

    # ---------------------------------------------------------------- state and results

    def _weights(self) -> dict[str, Any]:
        return {"parameters": [p.detach() for p in self.parameters]}

    @torch.no_grad()
    def _load_weights(self, state: dict[str, Any]) -> None:
        torch._foreach_copy_(list[Tensor](self.parameters), state["parameters"])

    def export(self, folder: Path) -> None:
        """Write the averaged matrices where diffusers and `load_backbone(..., lora=...)` find
        them.
        """
        dtype = getattr(torch, self.settings.export)
        if self.execution.collective:  # no process holds them undivided
            state = self._saved(self.step)
            if state is None:
                raise UserError(
                    f"the checkpoint of step {self.step} is gone or damaged; go on with the run "
                    "and try again."
                )
            values = state["ema"]["average"] or state["parameters"]
            self._write(lora_state(self.backbone, values), folder, dtype)
            return
        with self.execution.averaged():
            self._write(lora_state(self.backbone), folder, dtype)

    def _write(self, state: dict[str, Tensor], folder: Path, dtype: torch.dtype) -> None:
        state = {name: value.to("cpu", dtype).contiguous() for name, value in state.items()}
        with atomic_folder(folder) as temporary:
            few = {} if self.recipe.lora.kind != "lcm" else LCM.header()
            save_file(state, temporary / FILE, metadata={"format": "pt", **few})
            base = at_home(self.recipe.base)
            note = {
                "base": str(base.resolve()) if base.exists() else self.recipe.base,
                "weight": 1.0,
            }
            write_json(temporary / BASE, note)
        if files := self.recipe.base_files.options():
            warnings.warn(
                f"{folder / BASE} names the base without base_files ({', '.join(files)}); give "
                "them again when the LoRA is used: --base, --lora and the others.",
                stacklevel=2,
            )

    def finish(self, status: str) -> None:
        summary = {
            **summary_of(self, self.held_out, status),
            "validation": self.history,
        }
        if status == "finished":
            self.export(self.folder / "lora")
            summary["lora"] = str(self.folder / "lora")
        write_json(self.folder / "summary.json", summary)
        if status == "finished":
            self.show_line(f"finished: {self.folder / 'lora'}")
