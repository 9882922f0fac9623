"""The content of alerts: events and reasons in the words of every other face."""

from __future__ import annotations

from support.bench import Bench

from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.model import Action
from agentvault_tui.watch.messages import compose


async def test_an_alert_words_event_and_reason_as_the_console_does(
    bench: Bench,
) -> None:
    """People read phrases; programs read the type and the code of the reason."""
    agent = await bench.agent("mail-reader")
    mail = Action(("read:mail",), "read:mail", None, {}, None)
    await request_token(bench.broker, agent, mail, resource=None, details=None)
    (event,) = await bench.events("token.decision")
    assert event.reason == "scope_not_granted"
    alert = compose(bench.broker, "ops", event.type.value, event, details=False)
    assert alert.title == "token asked for"
    assert ("Reason", "not granted") in alert.facts
    assert (alert.kind, alert.data["reason"]) == ("token.decision", event.reason)
