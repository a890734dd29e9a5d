CREATE TABLE shows (
    title text    NOT NULL PRIMARY KEY,
    seats integer NOT NULL CHECK (seats > 0)
);

CREATE TABLE bookings (
    title text NOT NULL REFERENCES shows (title),
    seat  text NOT NULL,
    guest text NOT NULL,
    PRIMARY KEY (title, seat)
);
