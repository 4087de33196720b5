"""Names of other programs' preprocessors, and what stands for each here.

A1111: the modules of sd-webui-controlnet 1.1.455, by their names and by their labels. ComfyUI: the
nodes of comfyui_controlnet_aux. A name that promises more than what is drawn here has a note; one
that nothing here stands for has a sentence that names the nearest thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Preprocessor:
    """What stands for a preprocessor of another program.

    condition: the registry's name; None where there is none. settings: parameters that the name
    says. note: what is less than the name promises, or, without a condition, what there is instead.
    """

    condition: str | None
    note: str = ""
    settings: Mapping[str, float] = field(default_factory=dict)


_XDOG = "the lines are drawn by XDoG, not by a network"
_EDGES = (
    "the edges are gradients at three scales; `--backend hed` reads them by HED, the network of "
    "that name"
)
_SOFT = (
    "the edges are gradients at three scales, not that network's; `--backend hed` is the nearest "
    "network"
)
_LUMA = "brightness is luma (Rec. 601)"
_COCO = "COCO's colours are painted where the model has COCO's 133 classes, else ADE20K's"
_RIDGES = "the strokes are ridges of gradients, not a network's"
_NO_EMBEDDING = "it embeds a picture instead of drawing a hint; there is no hint for it"
_IP_ADAPTER = (
    "it embeds a picture instead of drawing a hint; give both as "
    "zeroconv generate --image-prompt ADAPTER=PICTURE"
)
_REFERENCE = (
    "it changes attention instead of drawing a hint; give the picture as "
    "zeroconv generate --reference PICTURE"
)
_ADAIN = f"{_REFERENCE}, which is reference_only; statistics of layers (AdaIN) are not matched"
_ANIMALS = "people alone are read; give an animal's drawn pose as a finished hint"
_DENSE = "body surfaces are not read; the nearest hints are pose and segmentation"
_FACE_MESH = "the coloured face mesh is not drawn; openpose_faceonly draws a face's 70 points"
_CLASSES = "that network is not here; segmentation with --backend MODEL paints a model's classes"
_HANDS = "hands are not refined in depth; depth with --backend MODEL reads a picture's depth"
_MOTION = "motion between pictures is not read; no condition here is drawn from two pictures"
_KEYPOINTS = "poses are written and drawn by the condition pose and OpenPose's JSON"
_TILE = "the picture is coarsened; its colours are not matched to it after sampling"

HANDS: dict[str, float] = {"body": 1, "hands": 1, "face": 0}
FACE: dict[str, float] = {"body": 1, "hands": 0, "face": 1}
FACE_ONLY: dict[str, float] = {"body": 0, "hands": 0, "face": 1}
FULL: dict[str, float] = {"body": 1, "hands": 1, "face": 1}
_NOT_OPENPOSE = "bodies are read by PoseNet{more}, not by OpenPose's network"
_NOT_DWPOSE = "bodies are read by PoseNet, hands and faces by MediaPipe's networks, not by DWPose"
_WITH_MORE = _NOT_OPENPOSE.format(more=", hands and faces by MediaPipe's networks")

A1111: dict[str, Preprocessor] = {
    "none": Preprocessor(None, "it draws nothing; give a finished hint with NAME=PICTURE"),
    "canny": Preprocessor("canny"),
    "depth": Preprocessor("depth"),
    "depth_midas": Preprocessor("depth"),
    "depth_leres": Preprocessor("depth"),
    "depth_leres++": Preprocessor("depth"),
    "depth_zoe": Preprocessor("depth"),
    "depth_anything": Preprocessor("depth"),
    "depth_anything_v2": Preprocessor("depth"),
    "depth_hand_refiner": Preprocessor(None, _HANDS),
    "normal_bae": Preprocessor("normal"),
    "normal_map": Preprocessor("normal"),
    "normal_midas": Preprocessor("normal"),
    "normal_dsine": Preprocessor("normal"),
    "openpose": Preprocessor("pose", _NOT_OPENPOSE.format(more="")),
    "openpose_hand": Preprocessor("pose", _WITH_MORE, HANDS),
    "openpose_face": Preprocessor("pose", _WITH_MORE, FACE),
    "openpose_faceonly": Preprocessor("pose", _WITH_MORE, FACE_ONLY),
    "openpose_full": Preprocessor("pose", _WITH_MORE, FULL),
    "dw_openpose_full": Preprocessor("pose", _NOT_DWPOSE, FULL),
    "animal_openpose": Preprocessor(None, _ANIMALS),
    "densepose": Preprocessor(None, _DENSE),
    "densepose (pruple bg & purple torso)": Preprocessor(None, _DENSE),
    "densepose_parula": Preprocessor(None, _DENSE),
    "densepose_parula (black bg & blue torso)": Preprocessor(None, _DENSE),
    "mediapipe_face": Preprocessor(None, _FACE_MESH),
    "facexlib": Preprocessor(None, _NO_EMBEDDING),
    "mlsd": Preprocessor(
        "lines", "the segments are found by LSD, which needs no weights, not by M-LSD's network"
    ),
    "lineart": Preprocessor("lineart", _XDOG),
    "lineart_realistic": Preprocessor("lineart", _XDOG),
    "lineart_coarse": Preprocessor("lineart", _XDOG),
    "lineart_anime": Preprocessor("lineart", _XDOG),
    "lineart_anime_denoise": Preprocessor("lineart", _XDOG),
    "lineart_standard": Preprocessor("lineart", "lines are drawn by XDoG, at other widths"),
    "lineart_standard (from white bg & black line)": Preprocessor(
        "lineart", "lines are drawn by XDoG, at other widths"
    ),
    "scribble_xdog": Preprocessor("scribble", "the strokes are ridges of gradients, not XDoG's"),
    "scribble_hed": Preprocessor("scribble", _RIDGES),
    "scribble_pidinet": Preprocessor("scribble", _RIDGES),
    "pidinet_scribble": Preprocessor("scribble", _RIDGES),
    "hed": Preprocessor("softedge", _EDGES),
    "hed_safe": Preprocessor("softedge", f"{_EDGES}; levels are not rounded to steps"),
    "softedge_hed": Preprocessor("softedge", _EDGES),
    "softedge_hedsafe": Preprocessor("softedge", f"{_EDGES}; levels are not rounded to steps"),
    "pidinet": Preprocessor("softedge", _SOFT),
    "pidinet_safe": Preprocessor("softedge", _SOFT),
    "softedge_pidinet": Preprocessor("softedge", _SOFT),
    "softedge_pidisafe": Preprocessor("softedge", _SOFT),
    "softedge_teed": Preprocessor("softedge", _SOFT),
    "softedge_anyline": Preprocessor("softedge", _SOFT),
    "pidinet_sketch": Preprocessor("scribble", _RIDGES),
    "t2ia_sketch_pidi": Preprocessor("scribble", _RIDGES),
    "segmentation": Preprocessor("segmentation"),
    "seg_ufade20k": Preprocessor("segmentation"),
    "oneformer_ade20k": Preprocessor("segmentation"),
    "seg_ofade20k": Preprocessor("segmentation"),
    "oneformer_coco": Preprocessor("segmentation", _COCO),
    "seg_ofcoco": Preprocessor("segmentation", _COCO),
    "anime_face_segment": Preprocessor(None, _CLASSES),
    "seg_anime_face": Preprocessor(None, _CLASSES),
    "mobile_sam": Preprocessor(None, _CLASSES),
    "color": Preprocessor("palette"),
    "t2ia_color_grid": Preprocessor("palette"),
    "clip_vision": Preprocessor(None, _NO_EMBEDDING),
    "t2ia_style_clipvision": Preprocessor(None, _NO_EMBEDDING),
    "revision_clipvision": Preprocessor(None, _NO_EMBEDDING),
    "revision_ignore_prompt": Preprocessor(None, _NO_EMBEDDING),
    "ip-adapter-auto": Preprocessor(None, _IP_ADAPTER),
    "ip-adapter_clip_sd15": Preprocessor(None, _IP_ADAPTER),
    "ip-adapter_clip_h": Preprocessor(None, _IP_ADAPTER),
    "ip-adapter_clip_sdxl": Preprocessor(None, _IP_ADAPTER),
    "ip-adapter_clip_g": Preprocessor(None, _IP_ADAPTER),
    "ip-adapter_clip_sdxl_plus_vith": Preprocessor(None, _IP_ADAPTER),
    "ip-adapter_face_id": Preprocessor(None, _NO_EMBEDDING),
    "ip-adapter_face_id_plus": Preprocessor(None, _NO_EMBEDDING),
    "ip-adapter_pulid": Preprocessor(None, _NO_EMBEDDING),
    "instant_id_face_embedding": Preprocessor(None, _NO_EMBEDDING),
    "instant_id_face_keypoints": Preprocessor(None, _FACE_MESH),
    "reference_only": Preprocessor(None, _REFERENCE),
    "reference_adain": Preprocessor(None, _ADAIN),
    "reference_adain+attn": Preprocessor(None, _ADAIN),
    "inpaint": Preprocessor("inpaint"),
    "inpaint_global_harmonious": Preprocessor("inpaint"),
    "inpaint_only": Preprocessor(
        "inpaint", "the hint is drawn; what lies outside the hole is not pasted back"
    ),
    "inpaint_only+lama": Preprocessor(
        "inpaint", "the hole stays empty: no LaMa network fills it before sampling"
    ),
    "invert": Preprocessor("invert"),
    "invert (from white bg & black line)": Preprocessor("invert"),
    "threshold": Preprocessor("threshold"),
    "shuffle": Preprocessor("shuffle"),
    "tile_resample": Preprocessor("tile"),
    "tile_colorfix": Preprocessor("tile", _TILE),
    "tile_colorfix+sharp": Preprocessor("tile", f"{_TILE}, nor is it sharpened"),
    "blur_gaussian": Preprocessor("blur"),
    "recolor_luminance": Preprocessor("recolor", f"{_LUMA}, not CIELAB's lightness"),
    "recolor_intensity": Preprocessor("recolor", f"{_LUMA}, not HSV's value"),
}

COMFYUI: dict[str, Preprocessor] = {
    "CannyEdgePreprocessor": Preprocessor("canny"),
    "PyraCannyPreprocessor": Preprocessor("canny", "edges are drawn at one size, not at several"),
    "BinaryPreprocessor": Preprocessor(
        "threshold", "the level is 127 unless --set level= says otherwise; Otsu's is not sought"
    ),
    "ColorPreprocessor": Preprocessor("palette"),
    "ShufflePreprocessor": Preprocessor("shuffle"),
    "InpaintPreprocessor": Preprocessor("inpaint"),
    "TilePreprocessor": Preprocessor("tile"),
    "TTPlanet_TileSimple_Preprocessor": Preprocessor("tile", "the picture is coarsened only"),
    "TTPlanet_TileGF_Preprocessor": Preprocessor("tile", "no guided filter is applied"),
    "ImageIntensityDetector": Preprocessor("recolor", f"{_LUMA}, not HSV's value"),
    "ImageLuminanceDetector": Preprocessor("recolor", f"{_LUMA}, not CIELAB's lightness"),
    "HEDPreprocessor": Preprocessor("softedge", _EDGES),
    "PiDiNetPreprocessor": Preprocessor("softedge", _SOFT),
    "TEEDPreprocessor": Preprocessor("softedge", _SOFT),
    "DiffusionEdge_Preprocessor": Preprocessor("softedge", _SOFT),
    "AnyLineArtPreprocessor_aux": Preprocessor("softedge", _SOFT),
    "FakeScribblePreprocessor": Preprocessor("scribble", _RIDGES),
    "Scribble_PiDiNet_Preprocessor": Preprocessor("scribble", _RIDGES),
    "Scribble_XDoG_Preprocessor": Preprocessor(
        "scribble", "the strokes are ridges of gradients, not XDoG's"
    ),
    "ScribblePreprocessor": Preprocessor("scribble", "", {"strokes": 1}),
    "LineArtPreprocessor": Preprocessor("lineart", _XDOG),
    "LineartStandardPreprocessor": Preprocessor("lineart", "lines are XDoG's, at other widths"),
    "AnimeLineArtPreprocessor": Preprocessor("lineart", _XDOG),
    "Manga2Anime_LineArt_Preprocessor": Preprocessor("lineart", _XDOG),
    "M-LSDPreprocessor": Preprocessor(
        "lines", "the segments are found by LSD, which needs no weights, not by M-LSD's network"
    ),
    "MiDaS-DepthMapPreprocessor": Preprocessor("depth"),
    "LeReS-DepthMapPreprocessor": Preprocessor("depth"),
    "Zoe-DepthMapPreprocessor": Preprocessor("depth"),
    "Zoe_DepthAnythingPreprocessor": Preprocessor("depth"),
    "DepthAnythingPreprocessor": Preprocessor("depth"),
    "DepthAnythingV2Preprocessor": Preprocessor("depth"),
    "Metric_DepthAnythingV2Preprocessor": Preprocessor("depth"),
    "Metric3D-DepthMapPreprocessor": Preprocessor("depth"),
    "MeshGraphormer-DepthMapPreprocessor": Preprocessor(None, _HANDS),
    "MeshGraphormer+ImpactDetector-DepthMapPreprocessor": Preprocessor(None, _HANDS),
    "BAE-NormalMapPreprocessor": Preprocessor("normal"),
    "DSINE-NormalMapPreprocessor": Preprocessor("normal"),
    "MiDaS-NormalMapPreprocessor": Preprocessor("normal"),
    "Metric3D-NormalMapPreprocessor": Preprocessor("normal"),
    "OpenposePreprocessor": Preprocessor("pose", _WITH_MORE, FULL),
    "DWPreprocessor": Preprocessor("pose", _NOT_DWPOSE, FULL),
    "AnimalPosePreprocessor": Preprocessor(None, _ANIMALS),
    "RenderAnimalKps": Preprocessor(None, _ANIMALS),
    "RenderPeopleKps": Preprocessor("pose"),
    "SavePoseKpsAsJsonFile": Preprocessor(None, _KEYPOINTS),
    "FacialPartColoringFromPoseKps": Preprocessor(None, _FACE_MESH),
    "UpperBodyTrackingFromPoseKps": Preprocessor(None, _KEYPOINTS),
    "DensePosePreprocessor": Preprocessor(None, _DENSE),
    "MediaPipe-FaceMeshPreprocessor": Preprocessor(None, _FACE_MESH),
    "SemSegPreprocessor": Preprocessor("segmentation"),
    "UniFormer-SemSegPreprocessor": Preprocessor("segmentation"),
    "OneFormer-ADE20K-SemSegPreprocessor": Preprocessor("segmentation"),
    "OneFormer-COCO-SemSegPreprocessor": Preprocessor("segmentation", _COCO),
    "AnimeFace_SemSegPreprocessor": Preprocessor(None, _CLASSES),
    "SAMPreprocessor": Preprocessor(None, _CLASSES),
    "MaskOptFlow": Preprocessor(None, _MOTION),
    "Unimatch_OptFlowPreprocessor": Preprocessor(None, _MOTION),
}

# every name in lower case
PREPROCESSORS: dict[str, Preprocessor] = {
    name.lower(): entry for table in (A1111, COMFYUI) for name, entry in table.items()
}
