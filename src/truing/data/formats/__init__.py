"""Files become records: conventions, columns, verdicts, conversations, and every odd row accounted for."""
