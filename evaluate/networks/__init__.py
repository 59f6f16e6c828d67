"""Networks of other people: the architecture, the publisher's file and the input of each."""
