package schema

// The classes of an InvalidError; they end in the header exactly-error-class and in dead_letters.error_class.
const (
	ClassNoValue      = "no_value"            // null or empty value
	ClassNotAvro      = "not_avro"            // not the Confluent wire format
	ClassUnknown      = "unknown_schema"      // the registry does not know the id
	ClassIncompatible = "incompatible_schema" // the writer's schema cannot be read as ours
	ClassDecode       = "decode"              // the bytes do not follow the writer's schema
	ClassInvalid      = "invalid"             // decoded, but breaks a rule
)

// InvalidError says that a value is wrong and that no retry makes it right. Message never holds anything of the value itself:
// it is logged, and a click's url, ip and session are somebody's.
type InvalidError struct{ Class, Message string }

func (e *InvalidError) Error() string { return e.Class + ": " + e.Message }

// TransientError says that it could not be found out now; the same call may succeed later.
type TransientError struct {
	Op  string // what was being done, and to what
	Err error
}

func (e *TransientError) Error() string { return e.Op + ": " + e.Err.Error() }

// Reason is what metrics call it.
func (e *TransientError) Reason() string { return "registry" }

func (e *TransientError) Unwrap() error { return e.Err }
