"""Who may see and do what: roles, caseloads, passwords, tokens, and what is written down of every look."""
