// Package dsn holds the vocabulary of delivery status notifications, and builds and reads them.
package dsn
