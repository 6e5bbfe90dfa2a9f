"""The core's own components: declared like any plugin's."""

from modalign import Component, hookimpl


@hookimpl
def register_projections() -> list[Component]:
    return [
        Component(
            "universal",
            "modalign.projections.universal:Universal",
            "OneEncoder's shared transformer with a token per modality",
        ),
        Component("linear", "modalign.projections.linear:Linear", "masked mean, one linear map"),
        Component("mlp", "modalign.projections.mlp:MLP", "masked mean, a two-layer perceptron"),
    ]


@hookimpl
def register_losses() -> list[Component]:
    return [
        Component("infonce", "modalign.losses.infonce:InfoNCE", "CLIP's symmetric InfoNCE over any pairs"),
        Component(
            "symile",
            "modalign.losses.symile:Symile",
            "all modalities in one product: sees what no pair shows",
        ),
    ]


@hookimpl
def register_tasks() -> list[Component]:
    return [
        Component("retrieval", "modalign.tasks.retrieval:Retrieval", "find one modality with another"),
        Component("zero_shot", "modalign.tasks.zero_shot:ZeroShot", "classify by the nearest class text"),
    ]
