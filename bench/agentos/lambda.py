"""The same AgentOS as a Lambda function: Mangum between its app and AWS's runtime.

The environment is app.py's without PORT, and AWS_LAMBDA_RUNTIME_API.
"""

if __name__ == "__main__":
    from awslambdaric.__main__ import main

    main([__file__, "lambda.handler"])  # imports this file again, as a module
else:
    from app import app
    from mangum import Mangum

    # Mangum would start and stop the app around each request; the tables are made without.
    handler = Mangum(app, lifespan="off")
