"""Which modules are executed when they are first used, and what the others import of them.

Another version of a library may import more names of a module. Then the module is executed at once,
and only the time is lost. `tests/test_postponed.py` notices that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Postponed:
    """How one module waits.

    parts: of a package, whether its submodules may be imported before it is executed. Of any other
    package a submodule executes the package first.
    names: functions and classes that others import with `from` and use later. They get a stand-in
    that executes the module when it is used. An exception cannot be one: `except` needs the class.
    markers: names of decorators that register their argument and return it. What they were given
    before the module is executed is given to them again afterwards.
    homes: the module that a name comes from, or that it is the name of. That one is imported alone.
    version: whether the package's `__version__` is read from its metadata.
    then: modules that are executed after this one, since they register what belongs to it.
    """

    parts: bool = False
    names: tuple[str, ...] = ()
    markers: tuple[str, ...] = ()
    homes: Mapping[str, str] = field(default_factory=dict)
    version: bool = False
    then: tuple[str, ...] = ()


_CLIP = "transformers.models.clip"
MODULES = {
    # both read the first lines of every network's files, some 3,000
    "transformers": Postponed(
        parts=True,
        version=True,
        names=("AutoImageProcessor",),
        homes={
            "initialization": "transformers.initialization",
            "PreTrainedModel": "transformers.modeling_utils",
            "CLIPTextConfig": f"{_CLIP}.configuration_clip",
            "CLIPTextModel": f"{_CLIP}.modeling_clip",
            "CLIPTextModelWithProjection": f"{_CLIP}.modeling_clip",
            "CLIPTokenizer": f"{_CLIP}.tokenization_clip",
        },
    ),
    "transformers.models": Postponed(parts=True, homes={"auto": "transformers.models.auto"}),
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
    # sympy and the compiler's shapes, to check whether a tensor is divided among processes
    "torch.distributed.tensor": Postponed(
        names=("DTensor", "Partial", "Replicate", "Shard", "distribute_tensor")
    ),
    "torch.distributed.tensor._utils": Postponed(names=("compute_local_shape_and_global_offset",)),
    "torch.distributed.tensor.placement_types": Postponed(names=("Shard", "_StridedShard")),
    "transformers.distributed.tensor_parallel": Postponed(
        names=(
            "apply_tensor_parallelism",
            "gather_state_dict_for_save",
            "get_kv_heads_per_rank",
            "verify_tp_plan",
        ),
        then=("transformers.distributed.expert_parallel",),  # which registers its styles
    ),
    "transformers.distributed.expert_parallel": Postponed(names=("apply_expert_parallelism",)),
    # the configs of all its networks, to name methods of quantisation
    "transformers.quantizers": Postponed(names=("HfQuantizer",)),
    "transformers.quantizers.auto": Postponed(names=("get_hf_quantizer",)),
    "transformers.quantizers.quantizers_utils": Postponed(
        names=("get_module_from_name", "should_convert_module")
    ),
    # all of transformers a second time, for the classes that a processor may have
    "transformers.processing_utils": Postponed(homes={"Unpack": "typing"}),
    # docstrings ask for their tables; executed, the modules add to these very tables
    "transformers.models.auto.image_processing_auto": Postponed(
        homes={"IMAGE_PROCESSOR_MAPPING_NAMES": "transformers.models.auto.auto_mappings"}
    ),
    "transformers.models.auto.processing_auto": Postponed(
        homes={"PROCESSOR_MAPPING_NAMES": "transformers.models.auto.auto_mappings"}
    ),
    "requests": Postponed(),
    "diffusers.quantizers": Postponed(
        parts=True, names=("DiffusersAutoQuantizer", "DiffusersQuantizer")
    ),
    "diffusers.utils.dynamic_modules_utils": Postponed(names=("get_class_from_dynamic_module",)),
    # for samplers, and for losses of detectors
    "scipy.integrate": Postponed(),
    "scipy.stats": Postponed(),
    "scipy.optimize": Postponed(names=("linear_sum_assignment",)),
}
