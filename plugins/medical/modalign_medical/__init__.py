"""Scans, ECGs, laboratory values and reports: what this plugin offers, by name."""

from modalign import Component, hookimpl


@hookimpl
def register_modalities() -> list[Component]:
    return [
        Component("ecg", "modalign_medical.ecg:Ecg", "electrocardiograms: WFDB, EDF, CSV, arrays"),
        Component(
            "labs", "modalign_medical.labs:Labs", "laboratory values, as percentiles, with missing ones"
        ),
        Component("report", "modalign_medical.report:ClinicalReport", "clinical reports, section by section"),
        Component("scan", "modalign_medical.scan:Scan", "medical pictures: DICOM, NIfTI, PNG, JPEG, …"),
    ]


@hookimpl
def register_encoders() -> list[Component]:
    return [
        Component(
            "ecg-cnn", "modalign_medical.ecg_cnn:EcgCNN", "residual convolutions along time, from scratch"
        ),
        Component(
            "ecg-transformer",
            "modalign_medical.ecg_transformer:EcgTransformer",
            "patches of signal, transformer",
        ),
        Component(
            "labs-mlp", "modalign_medical.labs_mlp:LabsMLP", "perceptron on percentiles and missing flags"
        ),
        Component("scan-cnn", "modalign_medical.scan_cnn:ScanCNN", "small residual network for small scans"),
    ]
