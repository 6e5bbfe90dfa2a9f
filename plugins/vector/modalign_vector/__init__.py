"""Vectors for modalign: declarations only."""

from modalign import Component, hookimpl


@hookimpl
def register_modalities() -> list[Component]:
    return [Component("vector", "modalign_vector.modality:Vector", "Lists of numbers and .npy files")]


@hookimpl
def register_encoders() -> list[Component]:
    return [
        Component(
            "identity", "modalign_vector.identity:Identity", "a vector is its features; nothing is trained"
        )
    ]
