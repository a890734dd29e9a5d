package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/peterldowns/pgtestdb"
)

// schemaMigrator fills the template of pgtestdb.
type schemaMigrator struct{ name, schema string }

func (m schemaMigrator) Hash() (string, error) { return m.name, nil }

func (m schemaMigrator) Migrate(ctx context.Context, db *sql.DB, _ pgtestdb.Config) error {
	_, err := db.ExecContext(ctx, m.schema)
	return err
}

func openPgtestdbTests(ctx context.Context, g grounds) (*suite, error) {
	name := "thole_bench_" + strings.ToLower(rand.Text()) // nobody else's role and template
	cfg, err := pgtestdbConfig(g.url, name)
	if err != nil {
		return nil, err
	}
	var template string
	migrator := schemaMigrator{name, g.schema}
	err = runTest(ctx, func(tb testing.TB) {
		one := pgtestdb.Custom(tb, cfg, migrator)
		template, _, _ = strings.Cut(one.Database, "_inst_")
	})
	s := &suite{close: func() error { return dropPgtestdb(context.WithoutCancel(ctx), g.url, template, name) }}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	s.test = func(tb testing.TB) {
		db := pgtestdb.New(tb, cfg, migrator)
		check(tb, commitItem(tb.Context(), db, insertItemPostgres))
	}
	return s, nil
}

// pgtestdbConfig leads to the server of a URL, by a socket where that does.
func pgtestdbConfig(server, role string) (pgtestdb.Config, error) {
	cfg, err := pgx.ParseConfig(server)
	if err != nil {
		return pgtestdb.Config{}, err
	}
	options := url.Values{"sslmode": {either(cfg.TLSConfig == nil, "disable", "require")}}
	host, port := cfg.Host, strconv.Itoa(int(cfg.Port))
	if strings.HasPrefix(host, "/") {
		options.Set("host", host)
		options.Set("port", port)
		host, port = "", ""
	}
	return pgtestdb.Config{
		DriverName: "pgx",
		Host:       host,
		Port:       port,
		User:       cfg.User,
		Password:   url.QueryEscape(cfg.Password),
		Database:   cfg.Database,
		Options:    options.Encode(),
		TestRole: &pgtestdb.Role{
			Username:     role,
			Password:     rand.Text(),
			Capabilities: pgtestdb.DefaultRoleCapabilities,
		},
	}, nil
}

// dropPgtestdb drops what pgtestdb keeps for later runs.
func dropPgtestdb(ctx context.Context, server, template, role string) error {
	statements := []string{fmt.Sprintf("drop role if exists %s", role)}
	if template != "" {
		statements = []string{
			fmt.Sprintf("alter database %s is_template false", template),
			fmt.Sprintf("drop database %s", template),
			statements[0],
		}
	}
	var errs []error
	for _, statement := range statements {
		errs = append(errs, executeAt(ctx, server, statement))
	}
	return errors.Join(errs...)
}
