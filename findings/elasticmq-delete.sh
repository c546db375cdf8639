#!/usr/bin/env bash
# ElasticMQ 1.7.1 with boto3 1.44.5: DeleteMessage is answered with 400
# ReceiptHandleIsInvalid for the handle of an earlier receive. The API reference of
# DeleteMessage documents success there, perhaps without deleting. A second delete with the newest handle, as after an answer that was lost,
# is refused in the same way. In a batch with one handle twice, the second entry is in
# Failed.
#
# Needs Java 11 or later, Maven, python3 with venv.
set -euo pipefail
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cd "$work"

cat >pom.xml <<'XML'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>finding</groupId><artifactId>finding</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.elasticmq</groupId><artifactId>elasticmq-server_2.13</artifactId><version>1.7.1</version></dependency>
  </dependencies>
</project>
XML
cat >client.py <<'PY'
import sys, time
import boto3
from botocore.exceptions import ClientError, EndpointConnectionError

sqs = boto3.client("sqs", region_name="eu-west-1", endpoint_url=sys.argv[1],
                   aws_access_key_id="x", aws_secret_access_key="x")
for _ in range(200):
    try:
        sqs.list_queues()
        break
    except EndpointConnectionError:
        time.sleep(0.3)
queue = sqs.create_queue(QueueName="finding")["QueueUrl"]


def receive(visibility):
    sqs_answer = sqs.receive_message(QueueUrl=queue, VisibilityTimeout=visibility, WaitTimeSeconds=10)
    return sqs_answer["Messages"][0]["ReceiptHandle"]


def delete(handle):
    try:
        return sqs.delete_message(QueueUrl=queue, ReceiptHandle=handle)["ResponseMetadata"]["HTTPStatusCode"]
    except ClientError as e:
        return f'{e.response["ResponseMetadata"]["HTTPStatusCode"]} {e.response["Error"]["Code"]}'


sqs.send_message(QueueUrl=queue, MessageBody="a")
handle = receive(60)
print("first delete:", delete(handle))
print("second delete:", delete(handle))

sqs.send_message(QueueUrl=queue, MessageBody="b")
earlier = receive(1)
newer = receive(60)  # waits until the message is visible again
print("handle of an earlier receive:", delete(earlier))
print("handle of the newest receive:", delete(newer))

sqs.send_message(QueueUrl=queue, MessageBody="c")
handle = receive(60)
batch = sqs.delete_message_batch(QueueUrl=queue, Entries=[{"Id": i, "ReceiptHandle": handle} for i in ("1", "2")])
print("one handle twice in a batch:", [e["Id"] for e in batch.get("Successful", [])],
      [(e["Id"], e["Code"]) for e in batch.get("Failed", [])])
PY
cat >expected <<'TEXT'
first delete: 200
second delete: 400 ReceiptHandleIsInvalid
handle of an earlier receive: 400 ReceiptHandleIsInvalid
handle of the newest receive: 200
one handle twice in a batch: ['1'] [('2', 'ReceiptHandleIsInvalid')]
TEXT
mvn -q -B dependency:copy-dependencies -DoutputDirectory=lib >/dev/null
python3 -m venv venv
venv/bin/pip -q install boto3==1.44.5 2>/dev/null
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >server.conf <<CONF
include classpath("application.conf")
node-address { protocol = http, host = "127.0.0.1", port = $port, context-path = "" }
rest-sqs { enabled = true, bind-port = $port, bind-hostname = "127.0.0.1", sqs-limits = strict }
rest-stats { enabled = false }
CONF
java -Dconfig.file=server.conf -cp 'lib/*' org.elasticmq.server.Main >log 2>&1 &
server=$!
venv/bin/python client.py "http://127.0.0.1:$port" | tee seen
diff expected seen || { echo "the behaviour has changed"; exit 1; }
echo "as described: ElasticMQ 1.7.1 refuses handles that SQS accepts"
