from __future__ import annotations

from typing import Any

import pytest
from tests.fake_run import FakeRun, make_fake_run

from perikarya.evaluate.collect import Evaluation, evaluate_run


@pytest.fixture(scope="session")
def fake(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    return make_fake_run(tmp_path_factory.mktemp("fake"), seeds=(0, 1))


@pytest.fixture(scope="session")
def evaluation(fake: FakeRun) -> Evaluation:
    return evaluate_run(fake.run, fake.opened.cells, fake.opened.study, fake.config, tasks=fake.tasks)


@pytest.fixture(scope="session")
def results(evaluation: Evaluation) -> dict[str, Any]:
    return evaluation.results
