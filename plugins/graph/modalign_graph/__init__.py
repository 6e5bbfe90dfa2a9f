"""Molecules, knowledge graphs and nodes for modalign: declarations only."""

from modalign import Component, hookimpl


@hookimpl
def register_modalities() -> list[Component]:
    return [
        Component(
            "knowledge-graph",
            "modalign_graph.knowledge_graph:KnowledgeGraph",
            "Small knowledge graphs as triples: JSON, Turtle, N-Triples",
        ),
        Component("molecule", "modalign_graph.molecule:Molecule", "Molecules from SMILES or MDL mol blocks"),
        Component("node", "modalign_graph.node:Node", "Nodes of one big graph, with sampled neighbours"),
    ]


@hookimpl
def register_encoders() -> list[Component]:
    return [
        Component(
            "fingerprint",
            "modalign_graph.fingerprint:Fingerprint",
            "counts of substructures, keys and groups of a molecule, as they are or through a perceptron",
        ),
        Component("gat", "modalign_graph.node_networks:GAT", "graph attention around a node"),
        Component("gin", "modalign_graph.gin:GIN", "a graph isomorphism network over atoms and bonds"),
        Component("graph-conv", "modalign_graph.node_networks:GraphConv", "graph convolutions around a node"),
        Component(
            "linearised",
            "modalign_graph.linearised:Linearised",
            "triples written as sentences, through a text encoder",
        ),
        Component(
            "relational-gnn",
            "modalign_graph.relational_gnn:RelationalGNN",
            "message passing over the triples of a knowledge graph",
        ),
    ]
