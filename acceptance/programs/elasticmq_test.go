package programs

var _ = tried(entry{
	program: "ElasticMQ, a stand-in for Amazon SQS", name: "elasticmq", pkgs: []string{"elasticmq-server_2.13"},
	tried: "the tests of the queue on SQS (`shared/queue/sqs`), as with moto: delivery to one of several receivers, " +
		"delays, waking, redelivery, crashed receivers",
	not: "ElasticMQ refuses a receipt that is used again or after a redelivery. SQS accepts both, and moto too. Keyway " +
		"then logs that the queue is not available, and the message is delivered again",
	date: "2026-11-29",
})
