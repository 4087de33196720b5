"""Fine-tuning a base by LoRA (Hu et al. 2021): the loop, its state, and the file other programs
read.

out/recipe.json, log.jsonl, checkpoints/, samples/   as of a ControlNet's run, see
                                                     `zeroconv.training.run`
out/lora/                                            the averaged matrices in diffusers' layout, and
                                                     a lora.json that names the base: `--base
                                                     out/lora` takes the folder as it is
out/summary.json                                     how it ended
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from zeroconv.backbones import UNetBackbone, load_backbone
from zeroconv.backbones.text import note_cut_prompts
from zeroconv.checkpoints.lora import BASE, FILE
from zeroconv.data.batches import Batch, BatchPlan
from zeroconv.data.cache.examples import Examples
from zeroconv.data.cache.fill import CacheSettings, cache_examples
from zeroconv.data.holding_out import hold_out
from zeroconv.data.spec import open_dataset
from zeroconv.errors import Interrupted
from zeroconv.files import atomic_folder, atomic_write
from zeroconv.inputs import at_home
from zeroconv.jsonfile import write_json
from zeroconv.optim.ema import Ema
from zeroconv.training.checkpoint import (
    drawn_from,
    fitting,
    load_checkpoint,
    save_checkpoint,
    told_apart,
)
from zeroconv.training.execution.compile import check_compile, compile_layers_
from zeroconv.training.execution.launcher import check_processes
from zeroconv.training.execution.memory import spare_activations_
from zeroconv.training.execution.precision import autocast_dtype, loss_scale
from zeroconv.training.execution.room import check_room, told_of_room
from zeroconv.training.execution.threads import use_threads
from zeroconv.training.folder import list_broken, run_folder
from zeroconv.training.loop import Loop
from zeroconv.training.objective import ControlledLoss, stream
from zeroconv.training.optimizer import make_optimizer
from zeroconv.training.progress import Countdown, Say, print_line, told_of_start
from zeroconv.training.recipes.lora import LoraRecipe, LoraSettings
from zeroconv.training.reporting.log import Meter, RunLog
from zeroconv.training.reporting.samples import grid, spread, to_picture
from zeroconv.training.stopping import GOES_ON

# names of diffusers' modules; in and out of the UNet, and the time embedding, stay as they are
LAYERS = {
    "attention": ("to_q", "to_k", "to_v", "to_out.0"),
    "linear": ("proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "time_emb_proj"),
    "convolutions": ("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv"),
}


def train_lora(recipe: LoraRecipe, resume: bool = True, say: Say | None = None) -> Path:
    """Train as the recipe says, or go on with a run that its folder holds; returns the folder.

    `say` hears one line of progress at a time. `resume=False`: refuse to go on with an old run.
    Raises UserError, and Interrupted where a signal stopped the run.
    """
    say = say or print_line
    use_threads(recipe.training.threads)
    check_processes(None, 1)
    with run_folder(recipe, resume), told_of_room(recipe.training):
        trainer = assemble(recipe, say)
        if trainer.resume():
            say(told_of_start(trainer.step, recipe.training.steps))
        status = trainer.run()
        trainer.finish(status)
    if status == "interrupted":
        raise Interrupted(
            f"interrupted at step {trainer.step}, saved; {GOES_ON}", trainer.stopped_by
        )
    return trainer.folder


def assemble(recipe: LoraRecipe, say: Say) -> LoraTrainer:
    """Base, adapter and cached data of a recipe, put together."""
    settings = recipe.data
    device = torch.device(
        "cuda" if recipe.device == "auto" and torch.cuda.is_available() else "cpu"
    )
    check_compile(recipe.training, device)
    backbone = load_backbone(recipe.base, device=device)
    size = settings.size or backbone.default_size
    check_room(recipe.training, backbone, size)
    train_set = open_dataset(settings.train, size=size)
    if settings.validation is not None:
        held_out = open_dataset(settings.validation, size=size)
    else:
        train_set, held_out = hold_out(train_set, settings.validation_count)
    cache, progress = CacheSettings(settings.cache, settings.workers, settings.flip), Countdown(say)
    data = cache_examples(train_set, backbone, cache, progress)
    held = cache_examples(held_out, backbone, cache, progress)
    list_broken(Path(recipe.out), {**data.broken, **held.broken}, say)
    say(f"{len(data)} pictures to train on, {len(held)} held out")
    note_cut_prompts(backbone, data.text.captions, "captions")
    add_adapter(backbone, recipe.lora, recipe.training.seed)
    return LoraTrainer(recipe, backbone, data, held, say)


def add_adapter(backbone: UNetBackbone, settings: LoraSettings, seed: int = 0) -> None:
    """Put matrices beside the UNet's layers, by peft. B is zero, so nothing changes yet; they alone
    train.
    """
    from peft import LoraConfig

    targets = [name for kind in settings.layers for name in LAYERS[kind]]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone.unet.add_adapter(
            LoraConfig(r=settings.rank, lora_alpha=settings.rank, target_modules=targets)
        )


def lora_state(backbone: UNetBackbone) -> dict[str, Tensor]:
    """The matrices in diffusers' layout: `unet.<module>.lora_A.weight` and `lora_B`; α is the
    rank.
    """
    from peft.utils import get_peft_model_state_dict

    return {
        f"unet.{name}": value for name, value in get_peft_model_state_dict(backbone.unet).items()
    }


class LoraTrainer(Loop):
    """Trains the adapter in `backbone` on the backbone's own loss. Everything that changes is in
    `state()`.
    """

    def __init__(
        self,
        recipe: LoraRecipe,
        backbone: UNetBackbone,
        data: Examples,
        held_out: Examples,
        say: Say = print,
    ) -> None:
        super().__init__()
        self.recipe, self.settings, self.say = recipe, recipe.training, say
        self.folder, self.backbone, self.data, self.held_out = (
            Path(recipe.out),
            backbone,
            data,
            held_out,
        )
        settings = self.settings
        backbone.unet.to(memory_format=torch.channels_last)
        self.parameters = [p for p in backbone.unet.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(backbone.unet, settings)
        self.ema = Ema(self.parameters, settings.ema_decay)
        dtype = autocast_dtype(settings.precision, backbone.device)
        self.scaler = loss_scale(settings.precision, backbone.device)
        self.loss = ControlledLoss(
            backbone, None, dtype, settings.timesteps, settings.min_snr, settings.offset_noise
        )
        # before what is computed again
        self.compiled = compile_layers_(backbone, None, data, settings, say)
        if told := spare_activations_(self.loss, data, settings):
            say(told)
        self.first_plan = BatchPlan(
            data,
            settings.batch_size,
            settings.seed,
            settings.prompt_dropping,
            flip=recipe.data.flip,
        )
        self.log = RunLog(self.folder / "log.jsonl")
        self.meter = Meter(settings.batch_size)
        self.history: list[dict[str, float]] = []

    def _gradients(self, micro: list[Batch]) -> float:
        device, total = self.backbone.device, 0.0
        for number, batch in enumerate(micro):
            generator = stream(device, self.settings.seed, 4, self.step, number)
            with self.compiled():
                loss = self.loss(batch.to(device), generator) / len(micro)
                self._scaled(loss).backward()
            total += float(loss.detach())
        return total

    # ---------------------------------------------------------------- what it says and keeps

    def _validate(self) -> None:
        if not self.settings.validate_every:
            return
        with self.ema.swapped():
            loss = self.validation_loss()
        self.history.append({"step": self.step, "loss": round(loss, 6)})
        self.log.write(self.step, validation={"loss": round(loss, 6)})
        self.say(f"step {self.step}/{self.settings.steps}  held-out loss {loss:.4f}")

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
        device, errors = self.backbone.device, []
        for part in torch.arange(n).split(2 * self.settings.batch_size):
            z_, noise_, t_ = (x[part].to(device) for x in (z, noise, t))
            errors.append(
                self.loss.errors(z_, noise_, t_, None, text[part].to(device), control=False).cpu()
            )
        return float(torch.cat(errors).mean())

    def _sample(self) -> None:
        """A sheet: held-out pictures through the autoencoder above what the base makes of their
        captions.
        """
        from zeroconv.generation import generate

        settings, examples = self.settings, self.held_out
        if not settings.sample_count:
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
        }
        with self.ema.swapped():
            made = generate(self.backbone, examples.prompts(rows), **options)
        path = self.folder / "samples" / f"step-{self.step:08d}.png"
        with atomic_write(path) as temporary:
            grid([list(pair) for pair in zip(targets, made, strict=True)]).save(temporary)
        self.say(f"step {self.step}/{settings.steps}  pictures: {path}")

    # ---------------------------------------------------------------- state

    def state(self) -> dict[str, Any]:
        return {
            "parameters": [p.detach() for p in self.parameters],
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "drawn_from": drawn_from(self.data, 1),
            "skipped": self.skipped,
            "seconds": self.seconds,
            "micro": self.micro,
            "rollbacks": self.rollbacks,
            "losses": [self.meter.losses, self.meter.count],
            "history": self.history,
        }

    def save(self) -> None:
        save_checkpoint(self.folder / "checkpoints", self.step, self.state(), self.settings.keep)

    @torch.no_grad()
    def resume(self) -> bool:
        state = load_checkpoint(self.folder / "checkpoints", self.backbone.device)
        if state is None:
            self.log.cut(0)
            return False
        for line in told_apart(state.get("drawn_from"), drawn_from(self.data, 1)):
            self.say(line)
        with fitting(self.folder / "checkpoints"):
            self._restore(state)
        self.log.cut(self.step)
        return True

    def _restore(self, state: dict[str, Any]) -> None:
        torch._foreach_copy_(list[Tensor](self.parameters), state["parameters"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
        self.step, self.skipped, self.seconds = state["step"], state["skipped"], state["seconds"]
        self.micro, self.rollbacks, self.history = (
            state["micro"],
            state["rollbacks"],
            state["history"],
        )
        self.meter.losses, self.meter.count = state["losses"]

    def export(self, folder: Path) -> None:
        """Write the averaged matrices where diffusers and `load_backbone(..., lora=...)` find
        them.
        """
        dtype = getattr(torch, self.settings.export)
        with self.ema.swapped():
            state = {
                k: v.detach().to("cpu", dtype).contiguous()
                for k, v in lora_state(self.backbone).items()
            }
        with atomic_folder(folder) as temporary:
            save_file(state, temporary / FILE, metadata={"format": "pt"})
            base = at_home(self.recipe.base)
            note = {
                "base": str(base.resolve()) if base.exists() else self.recipe.base,
                "weight": 1.0,
            }
            write_json(temporary / BASE, note)

    def finish(self, status: str) -> None:
        summary = {
            "status": status,
            "steps": self.step,
            "samples": self.micro * self.settings.batch_size,
            "minutes": round(self.seconds / 60, 2),
            "examples": len(self.data),
            "broken": len(self.data.broken) + len(self.held_out.broken),
            "validation": self.history,
        }
        if status == "finished":
            self.export(self.folder / "lora")
            summary["lora"] = str(self.folder / "lora")
        write_json(self.folder / "summary.json", summary)
        if status == "finished":
            self.say(f"finished: {self.folder / 'lora'}")
