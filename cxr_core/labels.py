"""Names of radiographic findings and the label sets that a task may ask for."""

CHESTXRAY14 = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
"""The 14 findings of ChestX-ray14 in the published order (Wang et al. 2017, arXiv:1705.02315)."""

LABEL_SETS: dict[str, tuple[str, ...]] = {"chestxray14": CHESTXRAY14}
"""Label sets that a space file may name instead of listing their labels."""
