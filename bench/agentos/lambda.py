"""The same AgentOS as a Lambda function: Mangum between its app and AWS's runtime.

It reads the same environment as app.py, without PORT and with AWS_LAMBDA_RUNTIME_API.
"""

if __name__ == "__main__":
    from awslambdaric.__main__ import main

    main([__file__, "lambda.handler"])  # imports this file again, as a module
else:
    from app import app
    from mangum import Mangum

    # With lifespan, Mangum would start and stop the app around each request. The tables are
    # created without it.
    handler = Mangum(app, lifespan="off")
