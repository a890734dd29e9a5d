CREATE TABLE shields (
    name           text    NOT NULL PRIMARY KEY,
    defense_rating integer NOT NULL CONSTRAINT shields_defense_rating_check CHECK (defense_rating >= 0),
    material       text    NOT NULL,
    enchantment    text
);

CREATE TABLE armoury (
    material text    NOT NULL PRIMARY KEY,
    stock    integer NOT NULL CONSTRAINT armoury_stock_check CHECK (stock >= 0)
);
