from __future__ import annotations

from tests.unit.services.test_difference import as_ecs_shows
from tests.unit.services.test_rendering import IMAGE, MODEL, SHA, definition, service
from trainshed.services.rendering import Model
from trainshed.services.unit import UnitModel, unit_of


def test_a_unit_is_read_from_what_is_asked_for_and_from_what_ecs_shows_alike() -> None:
    wanted = definition(service(execution_role="run"), model=MODEL)
    found = unit_of(wanted)
    assert (found.image, found.digest) == (IMAGE, IMAGE.partition("@")[2])
    assert found.model == UnitModel(uri=MODEL.uri, run_id="7", sha256=SHA)
    assert unit_of(as_ecs_shows(wanted)) == found
    assert unit_of(definition()).model is None


def test_the_configuration_is_neither_image_nor_model() -> None:
    found = unit_of(definition(model=MODEL))
    others = [unit_of(definition(image="r/other@sha256:1", model=Model(uri="s3://b/m", sha256="c" * 64))), unit_of(definition())]
    assert {one.configuration for one in others} == {found.configuration}
    assert unit_of(definition(service(cpu=512), model=MODEL)).configuration != found.configuration
    assert unit_of(definition(service(environment={"A": "2"}), model=MODEL)).configuration != found.configuration


def test_another_image_model_or_configuration_is_another_unit_and_another_run_or_registry_is_not() -> None:
    key = unit_of(definition(model=MODEL)).key
    other = [
        definition(image=IMAGE.replace("1", "2"), model=MODEL),
        definition(model=Model(uri=MODEL.uri, run_id="7", path=MODEL.path, sha256="b" * 64)),
        definition(service(cpu=512), model=MODEL),
        definition(),
    ]
    assert key not in {unit_of(one).key for one in other}
    same = definition(image=IMAGE.replace("registry", "mirror"), model=Model(uri=MODEL.uri, run_id="8", path=MODEL.path, sha256=SHA))
    assert unit_of(same).key == key
