"""The table of `make mutants` fits the sources: a row whose text is gone tests nothing."""

import mutants
import pytest


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.name)
def test_row_fits_the_sources(mutant):
    assert mutants.misfits([mutant]) == []
    assert mutant.new != mutant.old


def test_every_row_is_one_of_its_own():
    assert len({mutant.name for mutant in mutants.MUTANTS}) == len(mutants.MUTANTS)
    assert len({mutant.number for mutant in mutants.MUTANTS}) == len(mutants.MUTANTS)
    for file in {mutant.file for mutant in mutants.MUTANTS}:
        mutants.patched(file)  # refuses texts that overlap
