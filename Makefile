# "make help" lists the targets. Building and testing need only Go and make; targets that
# need more name it. See README.md and CONTRIBUTING.md.
SHELL := /bin/bash
.DEFAULT_GOAL := help

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
DEADCODE := golang.org/x/tools/cmd/deadcode@v0.51.0
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
CYCLONEDX := github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0

.PHONY: help
help: ## List the targets (the default)
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

.PHONY: dev
dev: build ## Serve the quickstart on http://127.0.0.1:7777; makes a database, a key and tokens
	bin/keyway serve --dev --config examples/quickstart/keyway.yaml

.PHONY: build
build: ## Build bin/keyway
	@error=$$(go list -m 2>&1) || { echo "$$error; install Go $$(sed -n 's/^go //p' go.mod) or newer: https://go.dev/dl"; exit 1; }
	@[ -x bin/keyway ] || echo "building bin/keyway; the first build compiles every module and takes a few minutes on a small machine"
	@CGO_ENABLED=0 go build -trimpath -o bin/keyway ./cmd/keyway

# HTTP/1.1 is enough for Lambda, models and key servers. HTTP/2 would add 0.3 MB to load at each cold start.
LAMBDA_BUILD := CGO_ENABLED=0 GOOS=linux go build -trimpath -tags lambda.norpc,nethttpomithttp2 -ldflags '-s -w'

.PHONY: build-authorizer
build-authorizer: ## Build bin/authorizer/bootstrap, the Lambda authorizer (linux/arm64)
	@GOARCH=arm64 $(LAMBDA_BUILD) -o bin/authorizer/bootstrap ./authorizer

# The processor of the functions, as AWS names it: arm64 or x86_64. It must be the value of the template's parameter
# Architecture.
ARCH ?= arm64
# The configuration to deploy: keyway.yaml if it exists, otherwise an example with an agent on Bedrock.
KEYWAY_CONFIG ?= $(firstword $(wildcard keyway.yaml) examples/deploy/keyway.yaml)

# "sam build" calls this target for each function of template.yaml (Metadata: BuildMethod: makefile). It writes the
# function's program and the checked configuration into ARTIFACTS_DIR.
build-%Function: build
	@GOARCH=$(patsubst x86_64,amd64,$(ARCH)) $(LAMBDA_BUILD) -o $(ARTIFACTS_DIR)/bootstrap ./$(if $(filter Authorizer,$*),authorizer,functions/$(shell echo $* | tr A-Z a-z))
	@bin/keyway build --config $(KEYWAY_CONFIG) $(ARTIFACTS_DIR)

# The directory where "make sam" installs SAM's command line.
SAM := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/keyway/sam
export SAM_CLI_TELEMETRY ?= 0

.PHONY: sam
sam: ## Install SAM's command line, cfn-lint and checkov (needs python3 with venv; 600 MB in the cache directory)
	@[ -x $(SAM)/bin/pip ] || python3 -m venv $(SAM)
	@$(SAM)/bin/python -m pip install --quiet --disable-pip-version-check -r .ci/sam-requirements.txt
	@[ -x $(SAM)/checkov/bin/pip ] || python3 -m venv $(SAM)/checkov
	@$(SAM)/checkov/bin/python -m pip install --quiet --disable-pip-version-check -r .ci/checkov-requirements.txt
	@echo 'export PATH="$(SAM)/bin:$(SAM)/checkov/bin:$$PATH"'

.PHONY: sam-local
sam-local: build ## Serve keyway.yaml, or two demo agents, with sam local on http://127.0.0.1:3000 (SAM_PORT); needs docker and sam
	@.ci/sam-local.sh serve

.PHONY: invoke
invoke: build ## Invoke one function in a container, such as: make invoke F=agents E=events/agents.json
	@.ci/sam-local.sh invoke "$(F)" "$(E)"

# The environment of samconfig.toml: default, dev or prod.
ENV ?= default

.PHONY: deploy
deploy: build ## Build and deploy with sam to ENV (default, dev or prod); the first time, use sam deploy --guided
	sam build --config-env $(ENV)
	sam deploy --config-env $(ENV)

.PHONY: logs
logs: ## Follow the logs of the deployed functions (ENV as for deploy)
	groups=$$(sam list stack-outputs --config-env $(ENV) --output json | python3 -c 'import json,sys; print(next(o["OutputValue"] for o in json.load(sys.stdin) if o["OutputKey"] == "LogGroups"))') && \
	sam logs --config-env $(ENV) --tail $$(printf -- '--cw-log-group %s ' $${groups//,/ })

# The packages whose tests open a store. They are tested twice: with prepared statements, as a server opens a store, and
# without, as a Lambda function does.
STORE_TESTS := ./shared/store ./shared/run ./shared/queue/local ./shared/api

.PHONY: test
test: ## Run the tests (with the installed PostgreSQL, or one that is fetched; needs no C compiler)
	CGO_ENABLED=0 go test -timeout 40m -shuffle=on -count=1 ./...
	KEYWAY_STORE=unnamed CGO_ENABLED=0 go test -timeout 40m -shuffle=on -count=1 $(STORE_TESTS)

.PHONY: check
check: lint vulnerabilities verify ## Run everything that CI runs: lint, generated files, tests with the race detector
	KEYWAY_SEEDS=all CGO_ENABLED=1 go test -race -timeout 40m -shuffle=on -count=1 ./...
	KEYWAY_STORE=unnamed CGO_ENABLED=1 go test -race -timeout 40m -shuffle=on -count=1 $(STORE_TESTS)

# The directory where "make agno" installs AgentOS's Python client. A test calls this server with it.
AGNO := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/keyway/agno

.PHONY: agno
agno: ## Install AgentOS's Python client for the test that needs it (needs python3 with venv; 130 MB in the cache directory)
	@[ -x $(AGNO)/bin/pip ] || python3 -m venv $(AGNO)
	@$(AGNO)/bin/python -m pip install --quiet --disable-pip-version-check -r acceptance/testdata/clients/requirements.txt
	@echo "export KEYWAY_AGNO_PYTHON=$(AGNO)/bin/python"

# The directory where "make moto" installs moto, which replaces AWS in the tests of the SQS queue.
MOTO := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/keyway/moto

.PHONY: moto
moto: ## Install moto, a stand-in for AWS, for the tests that need it (needs python3 with venv; 320 MB in the cache directory)
	@[ -x $(MOTO)/bin/pip ] || python3 -m venv $(MOTO)
	@$(MOTO)/bin/python -m pip install --quiet --disable-pip-version-check -r shared/queue/sqs/testdata/requirements.txt
	@echo "export KEYWAY_MOTO_SERVER=$(MOTO)/bin/moto_server"

# The directory where "make iam" installs an evaluator of IAM policies. A test compares its verdicts with ours.
IAM := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/keyway/iam

.PHONY: iam
iam: ## Install an IAM policy evaluator for the test that needs it (needs Node.js 20 with npm; 19 MB in the cache directory)
	@mkdir -p $(IAM) && cp shared/edge/testdata/iam/{package.json,package-lock.json,.npmrc} $(IAM)/
	@cd $(IAM) && npm ci --silent
	@echo "export KEYWAY_IAM_SIMULATE=$(IAM)"

# The directory where "make axe" installs axe-core. A test checks each view of the console with it.
AXE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/keyway/axe

.PHONY: axe
axe: ## Install axe-core, which checks accessibility, for the test that needs it (needs Node.js 20 with npm; 4 MB in the cache directory)
	@mkdir -p $(AXE) && cp acceptance/testdata/axe/{package.json,package-lock.json,.npmrc} $(AXE)/
	@cd $(AXE) && npm ci --silent
	@echo "export KEYWAY_AXE=$(AXE)/node_modules/axe-core/axe.min.js"

.PHONY: programs
programs: ## Install the programs of acceptance/programs (needs python3 with venv, npm, Maven; 1.5 GB in the cache directory); PROGRAMS=NAME installs one
	@.ci/programs.sh $(PROGRAMS)

# The directory where "make identity" installs Keycloak.
KEYCLOAK_VERSION := 26.7.3
KEYCLOAK := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/keyway/keycloak

.PHONY: identity
identity: ## Run Keyway with a real Keycloak, which is too large for CI (needs Java 17, Maven; 420 MB in the cache directory)
	@mkdir -p $(KEYCLOAK) && cd $(KEYCLOAK) && [ -d keycloak-$(KEYCLOAK_VERSION) ] || mvn --quiet --batch-mode \
		org.apache.maven.plugins:maven-dependency-plugin:3.8.1:unpack -DoutputDirectory=$(KEYCLOAK) \
		-Dartifact=org.keycloak:keycloak-quarkus-dist:$(KEYCLOAK_VERSION):zip
	KEYWAY_KEYCLOAK=$(KEYCLOAK)/keycloak-$(KEYCLOAK_VERSION) CGO_ENABLED=0 go test -tags keycloak -v -count=1 -timeout 15m -run Keycloak ./acceptance/programs

.PHONY: lint
lint: ## Run gofmt, go vet, staticcheck, golangci-lint, deadcode and go mod tidy
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "run gofmt -w on:" $$unformatted; exit 1; fi
	go vet ./...
	GOOS=darwin go vet ./...
	go run $(STATICCHECK) ./...
	go run $(GOLANGCI) run ./...
	@linked=$$(go list -deps ./functions/... ./authorizer ./cmd/keyway | sed -n 's#^github.com/keyway-agents/keyway/##p') && \
	found=$$(go run $(DEADCODE) ./...) || exit 1; \
	unused=$$(while IFS= read -r line; do file=$${line%%:*}; \
		grep -qxF -- "$${file%/*}" <<<"$$linked" && echo "$$line"; done <<<"$$found"); \
	if [ -n "$$unused" ]; then echo "no program calls these functions, although it links them:"; echo "$$unused"; exit 1; fi
	go mod tidy -diff

# The database of known vulnerabilities. On a machine without access to it, the target prints that nothing was checked.
VULNDB := https://vuln.go.dev

.PHONY: vulnerabilities
vulnerabilities: ## Report known vulnerabilities in what the programs link (needs access to vuln.go.dev)
	@if curl -sf -m 20 -o /dev/null $(VULNDB)/index/db.json; \
	then go run $(GOVULNCHECK) -db $(VULNDB) ./...; \
	else echo "vulnerabilities: NOT CHECKED: $(VULNDB) cannot be reached from this machine"; fi

PLATFORMS := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64

.PHONY: release
release: ## Build bin/release: keyway for each platform, its bill of materials (CycloneDX), and SHA256SUMS
	rm -rf bin/release && mkdir -p bin/release
	for p in $(PLATFORMS); do CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} \
		go build -trimpath -o bin/release/keyway-$${p%/*}-$${p#*/} ./cmd/keyway || exit 1; done
	go run $(CYCLONEDX) app -json -main cmd/keyway -output bin/release/keyway.cdx.json .
	cd bin/release && sha256sum keyway* >SHA256SUMS

.PHONY: generate
generate: ## Generate the documents that are made from the code
	go generate ./...

.PHONY: picture
picture: build ## Draw the README's picture again, with the output of a running server (needs python3)
	python3 docs/picture/make.py

.PHONY: verify
verify: generate ## Fail if a generated file differs from what the code makes
	git diff --exit-code -- docs shared/api/openapi.json

.PHONY: bench-console
bench-console: ## Measure the web console in Chromium: first paint, and the longest frame while 10,000 tokens arrive
	@CGO_ENABLED=0 go test -v -count=1 -run 'TestConsoleShowsTenThousandTokens|TestTheCompressedConsoleIsSmall' ./acceptance ./console | grep -E 'console_(speed_)?test.go|^ok|FAIL'

.PHONY: screenshots
screenshots: ## Take the pictures of the web console for the documents again, from a running server (needs Chromium)
	KEYWAY_SCREENSHOTS=$(CURDIR)/docs/picture CGO_ENABLED=0 go test -count=1 -run TestConsolePicturesShowRealData ./acceptance

# The commit to compare with, and where its programs are built.
BASE ?= HEAD
BASE_DIR ?= $(CURDIR)/bin/base
.PHONY: bench-base
bench-base: ## Build the programs of the commit BASE into bin/base, for "go run ./bench --lambda --base bin/base"
	@rm -rf $(BASE_DIR) && mkdir -p $(BASE_DIR)
	@git worktree add --force --detach $(BASE_DIR)/source $(BASE) >/dev/null 2>&1
	@cp $(BASE_DIR)/source/bench/keyway.yaml $(BASE_DIR)
	@cd $(BASE_DIR)/source && CGO_ENABLED=0 go build -trimpath -o $(BASE_DIR)/keyway ./cmd/keyway && \
		for f in agents sessions runs; do $(LAMBDA_BUILD) -o $(BASE_DIR)/$$f ./functions/$$f || exit 1; done && \
		$(LAMBDA_BUILD) -o $(BASE_DIR)/authorizer ./authorizer && \
		CGO_ENABLED=0 go test -c -o $(BASE_DIR)/edge.test ./shared/edge
	@git worktree remove --force $(BASE_DIR)/source

.PHONY: bench-report
bench-report: ## Measure the server beside the program BASE, and write docs/benchmarks.md with its charts
	@test -x "$(BASE)" || { echo "bench-report: set BASE to the path of another keyway program"; exit 2; }
	go run ./bench --base "$(BASE)" --growth --report docs

.PHONY: bench
bench: ## Measure the server; bench/README.md shows how to measure AgentOS beside it
	go run ./bench

.PHONY: pgbouncer
pgbouncer: ## Install PgBouncer for "make chaos" (needs apt-get, and root or sudo)
	@PATH=$$PATH:/usr/sbin command -v pgbouncer >/dev/null || { \
		sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		$$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq pgbouncer; }

.PHONY: chaos
chaos: pgbouncer ## Kill servers and disturb their database for 20 minutes, and audit every run (docs/chaos.md)
	go run ./acceptance/chaos $(CHAOS)

.PHONY: chaos-short
chaos-short: ## The same for less than 3 minutes, as CI does it
	go run ./acceptance/chaos --short $(CHAOS)

.PHONY: hostile
hostile: ## Abuse the server in more than 20 ways beside honest callers, and compare their times (acceptance/hostile; Linux)
	go run ./acceptance/hostile $(HOSTILE)

.PHONY: hostile-short
hostile-short: ## The same for less than a minute, without the comparison
	go run ./acceptance/hostile --short $(HOSTILE)
