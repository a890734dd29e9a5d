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

# Every fuzz target there is. One that fails and has found nothing runs again:
# before Go 1.27 the end of -fuzztime itself can be taken for a failure
# (https://go.dev/issue/75804).
fuzz:
	@grep -ro --include='*_test.go' '^func Fuzz[[:alnum:]_]*' . | sort | while IFS=: read -r file func; do \
		dir="$${file%/*}"; \
		run() { go test -run '^$$' -fuzz "^$${func#func }$$" -fuzztime $(FUZZTIME) "$$dir" </dev/null; }; \
		found() { [ -n "$$(git status --porcelain -- "$$dir/testdata")" ]; }; \
		echo "$$dir $${func#func }"; \
		run || { ! found && run; } || exit 1; \
	done
