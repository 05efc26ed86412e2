from pathlib import Path

import pandas as pd

from cxr_core.labels import CHESTXRAY14, LABEL_SETS


def test_chestxray14_is_the_findings_of_the_published_table(real_data: Path) -> None:
    table = pd.read_csv(real_data / "nih_tables" / "Data_Entry_2017_v2020.csv", usecols=["Finding Labels"])
    named = {finding for findings in table["Finding Labels"].unique() for finding in findings.split("|")}
    assert {*CHESTXRAY14, "No Finding"} == named


def test_a_label_set_names_each_finding_once() -> None:
    assert all(len(set(labels)) == len(labels) for labels in LABEL_SETS.values())
