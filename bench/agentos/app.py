"""AgentOS with the agents of ../keyway.yaml, as one uvicorn process.

The environment is what `go run ./bench --peer` sets: PORT, DATABASE_URL,
OPENAI_BASE_URL, OPENAI_API_KEY and JWT_VERIFICATION_KEY.
"""

import os

# Before agno is imported: agno would read the key from the environment a second time.
SECRET = os.environ.pop("JWT_VERIFICATION_KEY")
os.environ["AGNO_TELEMETRY"] = "false"

from agno.agent import Agent
from agno.db.postgres import PostgresDb
from agno.models.openai import OpenAIChat
from agno.os import AgentOS
from agno.os.config import AuthorizationConfig

# SQLAlchemy's plain scheme means psycopg2.
db = PostgresDb(db_url=os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://", 1))


def agent(id, name, **options):
    # OpenAIChat reads OPENAI_BASE_URL and OPENAI_API_KEY.
    return Agent(id=id, name=name, model=OpenAIChat(id="gpt-4o"), db=db, telemetry=False, **options)


agent_os = AgentOS(
    id="bench-os",
    name="Benchmark",
    agents=[
        agent("bench-agent", "Benchmark Agent"),
        agent("bench-agent-hist", "Benchmark Agent with History", add_history_to_context=True),
    ],
    authorization=True,
    authorization_config=AuthorizationConfig(verification_keys=[SECRET], algorithm="HS256"),
    telemetry=False,
)
app = agent_os.get_app()

if __name__ == "__main__":
    import uvicorn

    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), access_log=False, log_level="warning")
