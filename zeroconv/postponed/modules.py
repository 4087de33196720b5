"""Which modules are executed when they are first used, and what the others import of them.

Another version of a library may import more names of a module. Then the module is executed at once,
and only the time is lost. `tests/test_postponed.py` notices that.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Postponed:
    """How one module waits.

    parts: of a package, whether its submodules may be imported before it is executed. Of any other
    package a submodule executes the package first.
    names: functions and classes that others import with `from` and use later. They get a stand-in
    that executes the module when it is used. An exception cannot be one: `except` needs the class.
    markers: names of decorators that register their argument and return it. What they were given
    before the module is executed is given to them again afterwards.
    """

    parts: bool = False
    names: tuple[str, ...] = ()
    markers: tuple[str, ...] = ()


MODULES = {
    # 60 networks, of which a UNet needs two blocks; of the others we need one each
    "diffusers.models.transformers": Postponed(parts=True),
    "diffusers.models.controlnets": Postponed(parts=True),
    "diffusers.models.autoencoders": Postponed(parts=True),
    "diffusers.models.unets": Postponed(parts=True),
    # the compiler and sympy, for one decorator on each block of a network
    "torch._dynamo": Postponed(markers=("allow_in_graph", "assume_constant_result")),
    "torch._dynamo._trace_wrapped_higher_order_op": Postponed(names=("TransformGetItemToIndex",)),
    # peft and networks of transformers, to cast, move and cache layers of diffusers' pipelines
    "diffusers.hooks": Postponed(),
    "diffusers.hooks.group_offloading": Postponed(
        names=("_get_group_onload_device", "_maybe_remove_and_reapply_group_offloading")
    ),
    # all its methods, for checks whether a layer is one of peft's
    "peft": Postponed(),
    "peft.tuners": Postponed(),
    "peft.tuners.tuners_utils": Postponed(names=("BaseTunerLayer",)),
    # training in several processes, for a text encoder of one
    "torch.distributed._composable.fsdp": Postponed(names=("fully_shard",)),
    "torch.distributed.fsdp": Postponed(
        names=("CPUOffloadPolicy", "FullyShardedDataParallel", "MixedPrecisionPolicy")
    ),
    "transformers.distributed.checkpoint": Postponed(
        names=(
            "_get_resolved_distributed_checkpoint_files",
            "_load_model_checkpoint_distributed",
            "_save_model_checkpoint_distributed",
            "consolidate_distributed_checkpoint",
            "get_distributed_checkpoint_dir",
        )
    ),
    # the compiler, for one kind of attention
    "transformers.integrations.flex_attention": Postponed(names=("flex_attention_forward",)),
    # the compiler, for servers of language models, and checks whether a cache is one of theirs
    "transformers.integrations.eager_paged": Postponed(names=("eager_paged_attention_forward",)),
    "transformers.generation.continuous_batching": Postponed(
        names=("ContinuousMixin", "PagedAttentionCache")
    ),
    "transformers.generation.continuous_batching.cache": Postponed(names=("PagedAttentionCache",)),
    # for samplers, and for losses of detectors
    "scipy.integrate": Postponed(),
    "scipy.stats": Postponed(),
    "scipy.optimize": Postponed(names=("linear_sum_assignment",)),
}
