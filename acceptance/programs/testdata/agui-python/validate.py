# Validates each event of a stream on stdin with the types of ag-ui-protocol, and prints its type and its unknown
# members. The types also make the request: "validate.py input THREAD RUN TEXT".
import sys

from ag_ui.core import Event, RunAgentInput, UserMessage
from pydantic import TypeAdapter

if sys.argv[1:2] == ["input"]:
    thread, run, text = sys.argv[2:]
    message = UserMessage(id="1", content=text)
    print(RunAgentInput(thread_id=thread, run_id=run, state={}, messages=[message], tools=[], context=[],
                        forwarded_props={}).model_dump_json(by_alias=True, exclude_none=True))
    sys.exit()

events = TypeAdapter(Event)
for line in sys.stdin:
    if line.startswith("data: "):
        event = events.validate_json(line[len("data: "):])
        print(event.type.value, *(event.model_extra or {}))
