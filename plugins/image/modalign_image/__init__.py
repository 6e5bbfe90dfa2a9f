"""Pictures: what this plugin offers, by name."""

from modalign import Component, hookimpl


@hookimpl
def register_modalities() -> list[Component]:
    return [Component("image", "modalign_image.modality:Image", "pictures: PNG, JPEG, WebP, TIFF, …")]


@hookimpl
def register_encoders() -> list[Component]:
    return [
        Component(
            "hf-image", "modalign_image.hf_image:HFImage", "ViT, DINOv2, CLIP or SigLIP, patch by patch"
        ),
        Component(
            "small-vit", "modalign_image.small_vit:SmallViT", "small ViT, trained from scratch on a CPU"
        ),
    ]
