# Tools run by "go run module@version": there is nothing to install.
LINT = go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
FUZZTIME = 20s

.PHONY: check lint vet test race fuzz

check: vet lint

# Formatting by gofumpt is among its findings.
lint:
	$(LINT) run ./...

vet:
	GOOS=linux go vet ./...
	GOOS=darwin go vet ./...
	GOOS=windows go vet ./...

test:
	go test ./...

race:
	go test -race -shuffle=on ./...

# Every fuzz target there is.
fuzz:
	@grep -ro --include='*_test.go' '^func Fuzz[[:alnum:]_]*' . | sort | while IFS=: read -r file func; do \
		echo "$${file%/*} $${func#func }"; \
		go test -run '^$$' -fuzz "^$${func#func }$$" -fuzztime $(FUZZTIME) "$${file%/*}" </dev/null || exit 1; \
	done
