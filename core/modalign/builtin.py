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
        Component(
            "mean", "modalign.projections.mean:Mean", "masked mean of the aligned tokens, nothing to train"
        ),
        Component("mlp", "modalign.projections.mlp:MLP", "masked mean, a two-layer perceptron"),
    ]


@hookimpl
def register_losses() -> list[Component]:
    return [
        Component("infonce", "modalign.losses.infonce:InfoNCE", "CLIP's symmetric InfoNCE over any pairs"),
        Component("nt_xent", "modalign.losses.nt_xent:NTXent", "SimCLR: candidates of both modalities"),
        Component(
            "siglip", "modalign.losses.siglip:SigLIP", "every pair of the batch judged alone, by a sigmoid"
        ),
        Component("dcl", "modalign.losses.dcl:DCL", "contrast without the positive in the denominator"),
        Component(
            "supcon", "modalign.losses.supcon:SupCon", "rows of one class attract each other; needs labels"
        ),
        Component(
            "cwcl", "modalign.losses.cwcl:CWCL", "positives weighted by a frozen encoder's similarities"
        ),
        Component(
            "late_interaction",
            "modalign.losses.late_interaction:LateInteraction",
            "FILIP: every token looks for its best match",
        ),
        Component(
            "momentum",
            "modalign.losses.momentum:Momentum",
            "MoCo: keys of a slow copy, and a queue of earlier ones",
        ),
        Component(
            "multiview",
            "modalign.losses.multiview:Multiview",
            "CMC: InfoNCE with one anchor or over all pairs, weighted",
        ),
        Component(
            "symile",
            "modalign.losses.symile:Symile",
            "all modalities in one product: sees what no pair shows",
        ),
        Component("gram", "modalign.losses.gram:GRAM", "a row's vectors span a small volume"),
        Component("triangle", "modalign.losses.triangle:Triangle", "a row's three vectors span a small area"),
        Component("alignment", "modalign.losses.alignment:Alignment", "partners lie close together"),
        Component("uniformity", "modalign.losses.uniformity:Uniformity", "embeddings spread over the sphere"),
    ]


@hookimpl
def register_tasks() -> list[Component]:
    return [
        Component(
            "blind_pairs",
            "modalign.tasks.blind_pairs:BlindPairs",
            "near in one modality, far in another: the worst pairs",
        ),
        Component("clustering", "modalign.tasks.clustering:Clustering", "are the classes the clusters?"),
        Component(
            "few_shot",
            "modalign.tasks.few_shot:FewShot",
            "learn classes from k items, and from other modalities",
        ),
        Component(
            "gap",
            "modalign.tasks.gap:Gap",
            "centres, alignment, uniformity and spectra of two modalities",
        ),
        Component("group", "modalign.tasks.group:Group", "the worst class against the average"),
        Component("knn_probe", "modalign.tasks.knn_probe:KnnProbe", "classify by the nearest labelled items"),
        Component(
            "linear_probe",
            "modalign.tasks.linear_probe:LinearProbe",
            "classify by a map of frozen embeddings",
        ),
        Component(
            "matrix",
            "modalign.tasks.matrix:Matrix",
            "every ordered pair of modalities, trained together or not",
        ),
        Component(
            "missing",
            "modalign.tasks.missing:Missing",
            "a task as its query's modalities are dropped, and what each is worth",
        ),
        Component(
            "rank_variance",
            "modalign.tasks.rank_variance:RankVariance",
            "do several languages find the same thing equally well?",
        ),
        Component("retrieval", "modalign.tasks.retrieval:Retrieval", "find one modality with another"),
        Component("shift", "modalign.tasks.shift:Shift", "a task on a shifted split or other classes"),
        Component("zero_shot", "modalign.tasks.zero_shot:ZeroShot", "classify by the nearest class text"),
    ]
