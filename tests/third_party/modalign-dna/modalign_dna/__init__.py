"""DNA for modalign: declarations only."""

from modalign import Component, hookimpl


@hookimpl
def register_modalities() -> list[Component]:
    return [Component("dna", "modalign_dna.modality:Dna", "DNA sequences from FASTA files")]


@hookimpl
def register_encoders() -> list[Component]:
    return [
        Component("dna-cnn", "modalign_dna.cnn:DnaCNN", "a small convolutional network on bases"),
        Component("dna-kmer", "modalign_dna.kmer:DnaKmer", "frequencies of k-mers, strands merged"),
    ]


@hookimpl
def register_losses() -> list[Component]:
    return [
        Component(
            "hardest-stranger", "modalign_dna.loss:HardestStranger", "only the nearest wrong candidate counts"
        )
    ]


@hookimpl
def register_tasks() -> list[Component]:
    return [
        Component("mutual-neighbours", "modalign_dna.task:MutualNeighbours", "how many pairs find each other")
    ]
